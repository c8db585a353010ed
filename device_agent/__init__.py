"""The agent on a camera: capture, device section, summaries, features on request."""
