"""The whole loop on one machine, through the console scripts: the only place that knows both sides."""
