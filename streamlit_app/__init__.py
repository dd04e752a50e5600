"""The Streamlit page that `vtg ui` serves: search, one video, library and models.

In: a library folder (`Options`) and HTTP requests. Out: pages, and videos, posters, previews, clips and exports at
addresses of their own. Read `server` (start), `guard` with `origins` and `sign_in` (access), `backend` (the library and
its model, shared by all sessions), `url_state` and `page_state` (state of a page in its URL), `app` and `views`
(pages), then `media`, `uploads` and `tasks` (files and background work). All computation is done by the Python API in
`vtg`. `backend.Backend`, `options.Options` and `server.serve` are used from outside; the rest is internal.
"""
