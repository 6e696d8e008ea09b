"""HTTP server and its web page (extra `server`).

`service` answers without knowing of HTTP, `app` speaks HTTP, `static` is the page.
"""
