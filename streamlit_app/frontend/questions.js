// Offers example queries, and the recent queries of this browser, which stay in its local storage.

const KEPT = 8;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function read(key) {
  try {
    const kept = JSON.parse(localStorage.getItem(key) || "[]");
    return Array.isArray(kept) ? kept.filter((question) => typeof question === "string").slice(0, KEPT) : [];
  } catch {
    return [];
  }
}

function write(key, questions) {
  try {
    localStorage.setItem(key, JSON.stringify(questions));
  } catch {
    // Without local storage there is no history.
  }
}

function row(label, questions, testid, ask) {
  const made = element("div", "row");
  made.dataset.testid = testid;
  made.append(element("span", "what", label));
  for (const question of questions) {
    const chip = element("button", "pill");
    const text = element("span", "", question);
    text.dir = "auto";
    chip.type = "button";
    chip.title = question;
    chip.append(text);
    chip.addEventListener("click", () => ask(question));
    made.append(chip);
  }
  return made;
}

export default function ({ parentElement, data, setTriggerValue }) {
  const key = `vtg.asked.${data.library}`;
  if (data.query) write(key, [data.query, ...read(key).filter((question) => question !== data.query)].slice(0, KEPT));
  let root = parentElement.querySelector(".vtg");
  if (!root) {
    root = element("div", "vtg");
    parentElement.append(root);
  }
  const ask = (question) => setTriggerValue("ask", question);
  const draw = () => {
    const rows = [];
    if (data.examples.length) rows.push(row("Try", data.examples, "examples", ask));
    const earlier = read(key).filter((question) => question !== data.query);
    if (earlier.length) {
      const history = row("Recent queries", earlier, "history", ask);
      const forget = element("button", "pill forget", "Clear history");
      forget.type = "button";
      forget.addEventListener("click", () => {
        write(key, data.query ? [data.query] : []);
        draw();
      });
      history.append(forget);
      rows.push(history);
    }
    root.replaceChildren(...rows);
  };
  draw();
}
