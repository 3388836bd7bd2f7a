"""Plain definitions of well-known networks in torch, as sources of programs.

Each function takes the batch size and its own sizes and returns ``(module, inputs, loss, targets)``, what
``schedrl memmap trace module:function`` expects of any function: a module, its positional inputs (or a mapping of
named ones), and optionally a loss called as ``loss(output, *targets)`` with its targets. Called under
``FakeTensorMode`` they allocate nothing. Importing this package does not import torch; its modules do.
"""
