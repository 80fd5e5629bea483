"""Files and fine-tuning jobs, as OpenAI's API has them."""
