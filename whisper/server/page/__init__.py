"""The page at `/`: its files, and how a browser gets them"""
