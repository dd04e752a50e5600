// Uploads files one after the other, each as a stream.

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

class Uploader {
  constructor(parent) {
    this.root = element("div", "vtg");
    this.drop = element("label", "drop");
    this.input = element("input", "visually-hidden");
    this.input.type = "file";
    this.input.multiple = true;
    this.input.dataset.testid = "upload";
    this.hint = element("small");
    this.drop.append(this.input, element("strong", "", "Choose videos, or drop them here"), this.hint);
    this.files = element("ul", "files");
    this.files.setAttribute("aria-live", "polite");
    this.root.append(this.drop, this.files);
    parent.append(this.root);
    this.queue = Promise.resolve();
    this.sent = 0;
    this.input.addEventListener("change", () => {
      this.addFiles(this.input.files);
      this.input.value = "";
    });
    for (const name of ["dragenter", "dragover"]) {
      this.drop.addEventListener(name, (event) => {
        event.preventDefault();
        this.drop.classList.add("over");
      });
    }
    this.drop.addEventListener("dragleave", () => this.drop.classList.remove("over"));
    this.drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("over");
      this.addFiles(event.dataTransfer.files);
    });
  }

  update(data, emit) {
    this.data = data;
    this.emit = emit;
    this.hint.textContent = data.hint;
    this.input.accept = data.accept;
  }

  addFiles(files) {
    for (const file of files) {
      const row = element("li", "file");
      row.dataset.testid = "upload-row";
      const name = element("span", "name", file.name);
      name.dir = "auto";
      const stop = element("button", "pill", "Stop");
      stop.type = "button";
      const bar = element("progress");
      bar.max = 1;
      bar.value = 0;
      const state = element("span", "state", "waiting");
      row.append(name, stop, bar, state);
      this.files.prepend(row);
      const parts = { row, stop, bar, state };
      stop.addEventListener("click", () => {
        parts.stopped = true;
        if (parts.request) parts.request.abort();
      });
      this.queue = this.queue.then(() => this.send(file, parts)).then((end) => this.finish(parts, end));
    }
  }

  // Check first: browsers report a refusal during an upload only at its end.
  async refusal(file) {
    try {
      const answer = await fetch(`${this.data.url}?name=${encodeURIComponent(file.name)}&size=${file.size}`);
      if (answer.ok) return undefined;
      return (await answer.json()).reason;
    } catch {
      return "the connection was lost: try again";
    }
  }

  async send(file, parts) {
    if (parts.stopped) return { reason: "stopped" };
    if (file.size > this.data.limit) return { reason: this.data.tooLarge };
    const reason = await this.refusal(file);
    if (reason || parts.stopped) return { reason: reason || "stopped" };
    return new Promise((done) => {
      const request = (parts.request = new XMLHttpRequest());
      request.upload.addEventListener("progress", (event) => {
        parts.bar.value = event.loaded / event.total;
        parts.state.textContent = event.loaded < event.total ? "sending" : "being checked";
      });
      request.addEventListener("load", () => {
        let answer = {};
        try {
          answer = JSON.parse(request.responseText);
        } catch {
          answer = {};
        }
        if (request.status === 200) done(answer);
        else done({ reason: answer.reason || `the server refused it (${request.status})` });
      });
      request.addEventListener("error", () => done({ reason: "the connection was lost: try again" }));
      request.addEventListener("abort", () => done({ reason: "stopped" }));
      request.open("POST", `${this.data.url}?name=${encodeURIComponent(file.name)}`);
      request.send(file);
    });
  }

  finish({ row, stop, bar, state }, end) {
    stop.remove();
    bar.remove();
    if (end.reason) {
      row.classList.add("bad");
      state.textContent = end.reason;
    } else {
      state.textContent = "sent";
      this.sent += 1;
      this.emit("uploaded", { name: end.name, job: end.job, count: this.sent });
    }
  }
}

export default function ({ parentElement, data, setTriggerValue }) {
  const known = parentElement.querySelector(".vtg");
  const uploader = known ? known.vtgUploader : new Uploader(parentElement);
  uploader.root.vtgUploader = uploader;
  uploader.update(data, setTriggerValue);
}
