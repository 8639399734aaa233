"""The page on which runs are watched, judged, steered and compared: a server that reads run folders."""
