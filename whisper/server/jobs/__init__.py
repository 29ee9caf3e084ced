"""Jobs: transcriptions that no connection waits for, kept on disk until they are done and fetched"""
