"""What the chaos tests have in common, beside what they share with the end-to-end tests: both are one package."""
import os

__path__.append(os.path.join(os.path.dirname(__file__), "..", "..", "e2e", "support"))
