"""How fast is the gateway, beside bare libraries, a hand-written gateway, and a framework that does nothing?"""
