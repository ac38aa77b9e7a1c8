"""The web page for administrators, made on the server: pages.py writes them, visitor.py decides who may ask for what.

A page works without scripts. `static/console.js` fetches it anew when `live.py` says that something has changed.
"""
