"""Orders: points and a piece of stock are set aside together, then confirmed or given back.

Each module is one verb in its caller's transaction. Everywhere the resident is locked first, then
the order, then the merchant's side; so two taps, two phones and the worker cannot both decide.
"""
