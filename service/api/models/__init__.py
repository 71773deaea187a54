"""What is sent and answered in JSON, as the OpenAPI document shows it."""
