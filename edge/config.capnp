# workerd serve edge/config.capnp
#   STEPWELL_ORIGIN: where the campaign is published; STEPWELL_KEYS: public keys, by spaces;
#   STEPWELL_GATEWAY: a gateway to stand in front of, if any.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .filler),
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8092", http = (), service = "main")],
);

const filler :Workerd.Worker = (
  compatibilityDate = "2026-01-01",
  modules = [
    (name = "worker.js", esModule = embed "worker.js"),
    (name = "ask.js", esModule = embed "ask.js"),
    (name = "load.js", esModule = embed "load.js"),
    (name = "fill.js", esModule = embed "fill.js"),
  ],
  bindings = [
    (name = "ORIGIN", fromEnvironment = "STEPWELL_ORIGIN"),
    (name = "KEYS", fromEnvironment = "STEPWELL_KEYS"),
    (name = "GATEWAY", fromEnvironment = "STEPWELL_GATEWAY"),
  ],
);
