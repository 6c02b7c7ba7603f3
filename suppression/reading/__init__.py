"""Reads list files (CSV and its relatives, GZ, ZIP, XLSX, UTF-16) into keys, as a stream, a whole column at a time.

Belongs here: what a file is (`sources`, `archives`, `sheets`), where its rows and cells begin (`rows`), which column to
read (`layout`), what a cell says (`cells`, and `book.numbers` above all), and `reader`, which puts these
together and is what others import. Nothing here keeps a list or knows of the store, and no message repeats a cell.
"""
