// Uploads: one request after the other, with the progress of all of them, until one fails or they are stopped.
import { problemMessage } from "./wire.js";

export class Stopped extends Error {}

/** Sends files; `onProgress` gets the bytes that were sent so far. */
export class Sender {
  constructor(onProgress) {
    this.onProgress = onProgress;
    this.sent = 0;
    this.request = null;
  }

  /** Send a file; returns the document of the response. */
  async post(address, file) {
    const text = await new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      this.request = request;
      request.open("POST", address);
      request.upload.addEventListener("progress", (event) => this.onProgress(this.sent + event.loaded));
      request.addEventListener("load", () => {
        if (request.status >= 200 && request.status < 300) done(request.responseText);
        else failed(new Error(problemMessage(request.responseText, request.status)));
      });
      request.addEventListener("error", () => failed(new Error("The connection was lost, or the service rejected the file during the upload. Try again.")));
      request.addEventListener("abort", () => failed(new Stopped("Upload stopped; no job was started.")));
      request.send(file);
    });
    this.sent += file.size;
    return JSON.parse(text);
  }

  stop() {
    this.request?.abort();
  }
}
