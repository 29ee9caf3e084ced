"""Live transcription over a websocket, as OpenAI's clients speak it; and the places of all live sessions."""
