"""The script that Streamlit runs for each session and each interaction: navigation, and the chosen page."""

from __future__ import annotations

import streamlit as st

from streamlit_app import page_state
from streamlit_app.components import ICON, reconnect
from streamlit_app.theme import RULES
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
# Streamlit's own links to pages lose the state of the page in the URL, so the navigation is drawn below.
chosen = st.navigation(list(pages.values()), position="hidden")
here = next(name for name, page in pages.items() if page is chosen or page.url_path == chosen.url_path)
page_state.enter_page(here)
with st.container(horizontal=True, key="pages"):
    for name, page in pages.items():
        st.page_link(page, query_params=page_state.url_params(name), disabled=name == here)
with st.container(key="reconnect"):
    reconnect("page.reconnect")
chosen.run()
page_state.mark_complete()
