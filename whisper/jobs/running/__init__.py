"""How the recordings of a job are run: a runner gives them to workers, which transcribe"""
