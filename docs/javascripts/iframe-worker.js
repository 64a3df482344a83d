// Pages that are opened from disk may not start workers: there, run the search's script in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc =
        "<script>postMessage = (data) => parent.postMessage({ worker: data }, '*');" +
        "importScripts = () => {};</" + "script>" +
        `<script src="${url}"></` + "script>";
      this.frame.onload = () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      };
      addEventListener("message", ({ source, data }) => {
        if (source !== this.frame.contentWindow) return;
        const event = new MessageEvent("message", { data: data.worker });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      });
      document.body.append(this.frame);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })); // it has this origin
    }

    terminate() {
      this.frame.remove();
    }
  };
}
