"""What several methods are made of: each mechanism once, in a module named for what it is."""
