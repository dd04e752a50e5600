"""The script that Streamlit runs for each visitor and each click: which pages there are, and what is on all of them."""

from __future__ import annotations

import streamlit as st

from streamlit_app import visit
from streamlit_app.components import ICON, reconnect
from streamlit_app.look import RULES
from streamlit_app.views import library, models, search, video

st.set_page_config(page_title="vtg", page_icon=str(ICON), layout="wide")
st.html(RULES)
pages = {
    "search": st.Page(search.show, title="Search", icon=":material/search:", url_path="search", default=True),
    "video": st.Page(video.show, title="Video", icon=":material/movie:", url_path="video"),
    "library": st.Page(library.show, title="Library", icon=":material/video_library:", url_path="library"),
    "models": st.Page(models.show, title="Models", icon=":material/neurology:", url_path="models"),
}
st.session_state["pages"] = pages
# Streamlit's own links to pages know nothing of what was seen there: each would first be a step to an empty page.
chosen = st.navigation(list(pages.values()), position="hidden")
here = next(name for name, page in pages.items() if page is chosen or page.url_path == chosen.url_path)
visit.arrive(here)
with st.container(horizontal=True, key="pages"):
    for name, page in pages.items():
        st.page_link(page, query_params=visit.address(name), disabled=name == here)
with st.container(key="reconnect"):
    reconnect("page.reconnect")
chosen.run()
visit.finish()
