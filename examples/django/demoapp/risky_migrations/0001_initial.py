from importlib import import_module

Migration = import_module("demoapp.migrations.0001_initial").Migration
