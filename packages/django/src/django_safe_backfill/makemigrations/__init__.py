"""An application for INSTALLED_APPS that has `makemigrations` take safe operations in place of Django's own."""
