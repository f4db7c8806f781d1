"""`--compare`: finished runs side by side. compare.py is the way in; report.html is the template of the page."""
