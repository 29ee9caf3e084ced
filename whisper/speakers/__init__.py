"""Who speaks when: the voices of a recording told apart, named, and given to its words."""
