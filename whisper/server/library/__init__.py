"""The library: recordings of the page with their transcripts, kept, searched, corrected and given out"""
