"""An endpoint that answers as those of OpenAI do, for trying and for evaluation."""
