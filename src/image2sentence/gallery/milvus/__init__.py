"""Gallery in a Milvus database, with the interface of a folder's.

Its class is in `gallery`, which is imported only where a gallery is in a database.
"""
