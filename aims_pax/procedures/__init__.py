"""The stories: what happens from settings to models, told with the engines. They read like the paper's figure."""
