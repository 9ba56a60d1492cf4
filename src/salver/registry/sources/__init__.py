"""Where artifacts come from: this machine, a web server, a wheel, a hub."""
