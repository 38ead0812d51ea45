"""Files of many queries: read, reranked and written, on one machine or on many."""
