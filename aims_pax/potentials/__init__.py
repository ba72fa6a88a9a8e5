"""From what a user wrote to a potential: models, foundation models, built-in and own calculators."""
