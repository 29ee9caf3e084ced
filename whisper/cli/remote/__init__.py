"""The command with a server: recordings are sent to it, and the same files written of what comes back"""
