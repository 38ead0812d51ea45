"""An HTTP server that speaks the dialects of rerank APIs: Cohere, Jina, llama-server, TEI, vLLM."""
