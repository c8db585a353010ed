"""A virtual broker and the connections to it, in virtual time.

Harsher than MQTT over TCP: within a connection, frame messages overtake each other, QoS 0 is lost
and QoS 1 repeated. Messages under `ddnn/`, and their repeats, keep their order, as TCP would. A
partition swallows everything and says nothing: each side finds out for itself, as with a half-open
connection.
A client behaves as `ddnn.mqtt.Client` over paho: it keeps QoS 1 messages until they are
acknowledged, sends them again after a reconnect, and subscribes again every time.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict, deque

from ddnn.message import Message

KEEPALIVE_S = 5.0


def matches(topic_filter, topic):
    """MQTT's rule for `+`; a shared subscription without its `$share/<group>/`."""
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[2]
    if "+" not in topic_filter:
        return topic_filter == topic
    want, have = topic_filter.split("/"), topic.split("/")
    return len(want) == len(have) and all(w in ("+", h) for w, h in zip(want, have, strict=True))


class Link:
    """What the network between one host and the broker does to messages."""

    def __init__(self):
        self.cut = False
        self.loss = 0.0
        self.repeat = 0.0
        self.delay_s = 0.005
        self.jitter_s = 0.005


class Session:
    """What the broker knows of one connected client."""

    def __init__(self, client, will):
        self.client = client
        self.will = will
        self.open = True
        self.unacknowledged = deque(maxlen=1000)
        self.last_ordered = 0.0


class Broker:
    """Routes messages among clients; forgets everything when killed, retained or not as asked."""

    def __init__(self, world):
        self.world = world
        self.up = True
        self.life = 0
        self.sessions = {}
        self.retained = {}
        self._routes = {}
        self._turn = 0

    # -- life ------------------------------------------------------------------------------

    def kill(self, *, forget_retained):
        self.up = False
        self.life += 1
        sessions, self.sessions = self.sessions, {}
        self._routes.clear()
        if forget_retained:
            self.retained.clear()
        for session in sessions.values():
            session.open = False
            self.world.after(0.01, session.client.lost, session)

    def start(self):
        self.up = True

    # -- sessions --------------------------------------------------------------------------

    def connect(self, client, will):
        """A client connects; an older session of the same id is thrown out."""
        if client.name in self.sessions:
            self.drop(self.sessions[client.name])
        session = Session(client, will)
        self.sessions[client.name] = session
        self._routes.clear()
        return session

    def drop(self, session, *, clean=False):
        """A session ends; its will is published unless it said goodbye."""
        if not session.open:
            return
        session.open = False
        if self.sessions.get(session.client.name) is session:
            del self.sessions[session.client.name]
        self._routes.clear()
        if session.will and not clean:
            self.route(Message(*session.will), retain=True, qos=1)

    def subscribed(self, session, topic_filter, retained):
        self._routes.clear()
        if retained and not topic_filter.startswith("$share/"):
            for topic, payload in list(self.retained.items()):
                if matches(topic_filter, topic):
                    self._deliver(session, Message(topic, payload, True), 1)

    # -- messages --------------------------------------------------------------------------

    def route(self, message, *, retain, qos, expiry_s=None):
        if retain:
            if message.payload:
                self.retained[message.topic] = message.payload
            else:
                self.retained.pop(message.topic, None)
        routes = self._routes.get(message.topic)
        if routes is None:
            routes = self._routes[message.topic] = self._find(message.topic)
        plain, shared = routes
        for session in plain:
            self._deliver(session, message, qos, expiry_s)
        for group in shared:
            self._turn += 1
            self._deliver(group[self._turn % len(group)], message, qos, expiry_s)

    def _find(self, topic):
        plain, groups = [], {}
        for session in self.sessions.values():
            for topic_filter in session.client.handlers:
                if matches(topic_filter, topic):
                    if topic_filter.startswith("$share/"):
                        groups.setdefault(topic_filter, []).append(session)
                    else:
                        plain.append(session)
        return plain, list(groups.values())

    def _deliver(self, session, message, qos, expiry_s=None):
        world, link = self.world, session.client.link
        expires = None if expiry_s is None else world.now + expiry_s
        if qos:
            session.unacknowledged.append((message, expires))
        elif link.cut or (link.loss and world.rng.random() < link.loss):
            world.counts["lost"] += 1
            return
        delay = link.delay_s + world.rng.random() * link.jitter_s
        at, again = world.now + delay, delay
        if message.topic.startswith("ddnn/"):
            at, again = max(at, session.last_ordered), 0.0
            session.last_ordered = at
        world.at(at, self._arrive, session, message, qos, expires)
        if qos and link.repeat and world.rng.random() < link.repeat:
            world.counts["repeated"] += 1
            world.at(at + again, self._arrive, session, message, qos, expires)

    def _arrive(self, session, message, qos, expires):
        if not session.open or session.client.link.cut:
            return  # what is not acknowledged is sent again when the link heals
        if qos:
            with contextlib.suppress(ValueError):  # it is a repeat
                session.unacknowledged.remove((message, expires))
        if expires is not None and self.world.now > expires:
            self.world.counts["expired_on_the_way"] += 1
            return
        session.client.receive(session, message)

    def healed(self, session):
        """The link works again and neither side had noticed: TCP sends again what is missing."""
        waiting = list(session.unacknowledged)
        session.unacknowledged.clear()
        for message, expires in waiting:
            left = None if expires is None else expires - self.world.now
            if left is None or left > 0:
                self._deliver(session, message, 1, left)


class Client:
    """One host's connection, with the interface that the rules' shells use."""

    def __init__(self, world, name, link, *, will=None, on_up=None, on_down=None):
        self.world = world
        self.name = name
        self.link = link
        self.will = will
        self.handlers = {}
        self.session = None
        self.alive = True
        self.paused = None
        self._on_up, self._on_down = on_up, on_down
        self._kept = OrderedDict()
        self._number = 0
        self._last_ordered = 0.0
        self._handler_of = {}

    @property
    def connected(self):
        """Whether this side believes in its connection."""
        return self.session is not None

    # -- life ------------------------------------------------------------------------------

    def start(self):
        self.world.after(0.01, self._try)

    def die(self):
        """The process ends without a word; the broker's side of the socket closes at once."""
        self.alive = False
        session, self.session = self.session, None
        if session:
            if self.link.cut:
                self.world.after(1.5 * KEEPALIVE_S, self.world.broker.drop, session)
            else:
                self.world.broker.drop(session)

    def _try(self):
        if not self.alive or self.session:
            return
        broker = self.world.broker
        if not broker.up or self.link.cut or self.paused is not None:
            self.world.after(1.0 + 3.0 * self.world.rng.random(), self._try)
            return
        self.session = session = broker.connect(self, self.will)
        self._last_ordered = 0.0
        for topic_filter, (_, retained) in self.handlers.items():
            broker.subscribed(session, topic_filter, retained)
        if self._on_up:
            self._on_up()
        for number in list(self._kept):
            self._transmit(session, number)

    def lost(self, session):
        """This side notices that a connection is gone."""
        if self.session is not session or session is None:
            return
        if self.paused is not None:
            self.world.after(0.5, self.lost, session)
            return
        self.session = None
        if self.alive:
            if self._on_down:
                self._on_down()
            self.world.after(1.0 + 2.0 * self.world.rng.random(), self._try)

    def cut(self):
        """The link goes dead: both sides notice on their own, unless it heals before."""
        self.link.cut = True
        session = self.session
        if session:
            mine = KEEPALIVE_S * (0.3 + self.world.rng.random())
            theirs = KEEPALIVE_S * (0.5 + self.world.rng.random())
            self.world.after(mine, self._notice, session, True)
            self.world.after(theirs, self._notice, session, False)

    def heal(self):
        self.link.cut = False
        session = self.session
        if session and session.open:
            self.world.broker.healed(session)
            for number in list(self._kept):
                self._transmit(session, number)
        elif session:
            self.world.after(0.05, self.lost, session)  # the broker answers with a reset

    def _notice(self, session, mine):
        if not self.link.cut:
            return
        if mine:
            self.lost(session)
        else:
            self.world.broker.drop(session)

    # -- messages --------------------------------------------------------------------------

    def subscribe(self, topic_filter, handler, *, qos=1, retained=True):
        self.handlers[topic_filter] = (handler, retained)
        self._handler_of.clear()
        if self.session and self.session.open:
            self.world.broker.subscribed(self.session, topic_filter, retained)

    def unsubscribe(self, topic_filter):
        self.handlers.pop(topic_filter, None)
        self._handler_of.clear()
        self.world.broker._routes.clear()

    def send(self, message, on_receipt=None):
        """As `ddnn.mqtt.Client.send`; `on_receipt` is called when the broker acknowledges.

        Returns:
            Whether the message was taken.
        """
        if self.session is None and not message.keep:
            return False
        self._number += 1
        number = self._number
        if message.qos:
            self._kept[number] = (message, on_receipt)
        if self.session:
            self._transmit(self.session, number, message)
        return True

    def _transmit(self, session, number, message=None):
        world, link = self.world, self.link
        if message is None:
            message = self._kept[number][0]
        if message.qos == 0 and (link.cut or (link.loss and world.rng.random() < link.loss)):
            world.counts["lost"] += 1
            return
        delay = link.delay_s + world.rng.random() * link.jitter_s
        at, again = world.now + delay, delay
        if message.topic.startswith("ddnn/"):
            at, again = max(at, self._last_ordered), 0.0
            self._last_ordered = at
        world.at(at, self._reach, session, number, message, world.broker.life)
        if message.qos and link.repeat and world.rng.random() < link.repeat:
            world.counts["repeated"] += 1
            world.at(at + again, self._reach, session, number, message, world.broker.life)

    def _reach(self, session, number, message, life):
        broker = self.world.broker
        if not session.open or self.link.cut or broker.life != life:
            return
        broker.route(
            Message(
                message.topic, message.payload, False, message.response_topic, message.correlation
            ),
            retain=message.retain,
            qos=message.qos,
            expiry_s=message.expiry_s,
        )
        if message.qos:
            self.world.after(self.link.delay_s, self._acknowledged, session, number)

    def _acknowledged(self, session, number):
        if self.paused is not None:
            self.paused.append((self._acknowledged, session, number))
        elif self.session is session and self.alive and not self.link.cut:
            _, on_receipt = self._kept.pop(number, (None, None))
            if on_receipt:
                on_receipt()

    def receive(self, session, message):
        if self.session is not session or not self.alive:
            return
        if self.paused is not None:
            self.paused.append((self.receive, session, message))
            return
        handlers = self._handler_of.get(message.topic)
        if handlers is None:
            handlers = [h for f, (h, _) in self.handlers.items() if matches(f, message.topic)]
            if len(self._handler_of) < 1000:
                self._handler_of[message.topic] = handlers
        for handler in handlers:
            handler(message)

    def pause(self):
        """The process is stopped: what arrives waits in its socket, until the broker gives up."""
        self.paused = []
        if self.session:
            self.world.after(1.5 * KEEPALIVE_S, self._give_up, self.session)

    def resume(self):
        waiting, self.paused = self.paused or [], None
        for call, session, what in waiting:
            call(session, what)
        if self.session and not self.session.open:
            self.world.after(0.05, self.lost, self.session)

    def _give_up(self, session):
        if self.paused is not None and self.session is session:
            self.world.broker.drop(session)
