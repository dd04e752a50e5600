// Reports when the browser has reconnected to the server, which Streamlit's frontend shows in an attribute.

const STATE = "data-test-connection-state";

export default function ({ parentElement, setTriggerValue }) {
  const app = document.querySelector(`[${STATE}]`);
  if (!app) return;
  parentElement.vtgObserver?.disconnect();
  let before = app.getAttribute(STATE);
  const observer = new MutationObserver(() => {
    const state = app.getAttribute(STATE);
    if (state === "CONNECTED" && before !== "CONNECTED") setTriggerValue("connected", Date.now());
    before = state;
  });
  observer.observe(app, { attributes: true, attributeFilter: [STATE] });
  parentElement.vtgObserver = observer;
  return () => observer.disconnect();
}
