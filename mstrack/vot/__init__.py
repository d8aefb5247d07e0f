"""Our trackers under the official VOT toolkit: the TraX process it talks to, and the workspace it runs in."""
