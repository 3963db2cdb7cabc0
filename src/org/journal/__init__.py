"""Journals of rooms, as files: writing and reading one, the rooms there are, searching all of them."""

from org.journal.folder import holder, room_folder
from org.journal.rooms import RoomInfo, list_rooms, remove_room
from org.journal.search import INDEX, Found, Hit, search
from org.journal.store import Recorded, RoomJournal, read_events

__all__ = [
    "INDEX",
    "Found",
    "Hit",
    "Recorded",
    "RoomInfo",
    "RoomJournal",
    "holder",
    "list_rooms",
    "read_events",
    "remove_room",
    "room_folder",
    "search",
]
