"""What is told of a job: while it runs, at its end, and of what was said in the recordings"""
