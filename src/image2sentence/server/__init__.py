"""The server and its page: a gallery to search from a browser or through HTTP. Needs the `server` extra.

`service` answers without knowing of HTTP, `app` speaks HTTP, `static` is the page.
"""
