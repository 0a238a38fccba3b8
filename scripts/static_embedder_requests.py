"""Synthetic requests: the wordings people use, their slots filled from wide vocabularies.

In: a seed, a number, words by part of speech. Out: requests such as people send to language models, and descriptions
of what agents can do. They teach the static embedder which words of a request carry its meaning ("recipe", "lawsuit")
and which do not ("could you please"). Written for this script; nothing is taken from a data set.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence

OPENERS = """
|||||||||Please |Could you |Can you |Hi, can you |Hello! Please |I need you to |I'd like you to |Help me: |Quick one: |
As an expert, |Would you |Hey, |Good morning. Please |In simple words, |Step by step, |Without jargon, |Kindly |
""".replace("\n", "").split("|")
CLOSERS = """
||||||||| Thanks!| Thank you.| Keep it short.| Explain your reasoning.| Answer in one sentence.| Be detailed.
| Use bullet points.| Give an example.| Reply in JSON.| Think step by step.| Do not make things up.| Cite sources.
| It is urgent.| Return only the result.| Write for a beginner.| Assume no prior knowledge.| Use a formal tone.
""".replace("\n", "").split("|")
ACTIONS = """
summarise {doc}; summarize {doc} in {n} bullet points; write {piece} about {topic}; write {piece} about {noun};
translate {doc} into {language}; translate '{phrase}' to {language}; how do you say '{phrase}' in {language}?;
proofread {doc} and fix the grammar; rewrite {doc} in a {adj} tone; shorten {doc}; explain {topic} to a child;
explain {topic}; explain the difference between {noun} and {noun2}; compare {topic} with {topic2};
what is {noun}?; what does the word {noun} mean?; what is the meaning of {topic}?; who invented {thing}?;
why is {noun} important for {topic}?; when was {thing} first used?; where does {noun} come from?;
how does {topic} work?; how can I {verb} {noun}?; how do I {verb} my {thing}?; give me {n} ideas for {topic};
list {n} facts about {topic}; list the pros and cons of {topic}; what are the best books on {topic}?;
suggest a name for a company that sells {noun}; brainstorm slogans for {thing}; plan a lesson on {topic};
write a {code_kind} in {code} that {code_task}; write {code} code to {code_goal}; debug this {code} error: {error};
why does my {code} program fail with {error}?; refactor this {code} {code_kind} for readability; how to {code_goal} in {code};
write unit tests for a {code} {code_kind} that {code_task}; review this {code} pull request that {code_task};
convert this {code} {code_kind} to {code2}; explain what this {code} {code_kind} does; optimise a slow {code} {code_kind};
write a SQL query that {sql}; design a database schema for {business}; write a regular expression that matches {regex};
write a shell script that {shell}; configure {tool} for {business}; how do I install {tool}?; deploy {tool} on {platform};
{tool} does not start after the upgrade, what should I check?; set up monitoring for {tool} on {platform};
solve {equation}; compute {math}; prove that {theorem}; find the {mathobj} of {function}; {wordproblem};
what is the probability that {chance}?; convert {quantity} to {unit}; what is {percent} percent of {number}?;
my {product} {fault}; I want to return my {product} because it {fault}; where is my order of {product}?;
I was charged twice for {product}, please refund me; cancel my subscription to {service}; reset the password of my {service} account;
how do I change the {setting} in {service}?; write a polite reply to a customer whose {product} {fault};
classify this ticket: my {product} {fault}; the {service} app crashes when I open {setting};
review this {contract} for risks; is it legal to {legal}?; draft a {contract} between {party} and {party2};
what are my rights if my {party} {dispute}?; explain the clause on {clause} in a {contract}; what is the law on {clause} in {country}?;
what are the symptoms of {illness}?; how is {illness} treated?; is it safe to take {drug} with {drug2}?; which foods help against {illness}?;
what are the side effects of {drug}?; what causes {illness}?; recipe for {dish}; how long should I cook {dish}?; vegetarian alternative to {dish};
plan a {n} day trip to {place}; what is the capital of {country}?; what is the weather like in {place} in {month}?;
best restaurants in {place}; how far is {place} from {place2}?; tell me about the history of {country}; who won {event}?;
what happened in {country} in {year}?; who was {person}?; what did {person} discover?; recommend a film like {noun};
tell me a joke about {noun}; sing me a song about {topic}; how are you today?; let's talk about {topic}; I feel {feeling} because of {topic};
I am {feeling}, what should I do?; give me advice about {life}; how do I deal with {life}?; write a {adj} message to my {party} about {life};
extract all {entity} from {doc}; classify the sentiment of {doc}; turn {doc} into a table; find the {entity} mentioned in {doc};
answer the question using only {doc}; generate {n} quiz questions about {topic}; rate {doc} from 1 to 10; make a timeline of {topic};
analyse the quarterly figures of {business}; forecast the sales of {product} next {month}; what is the return on investment of {thing}?;
build a financial model for {business}; how are {noun} taxed in {country}?; should I invest in {noun}?; write a business plan for {business};
write a job advertisement for a {job}; prepare me for an interview as a {job}; write my CV as a {job}; what does a {job} earn in {country}?;
describe this image of {noun}; what is shown in the photo of {thing}?; generate an image of a {adj} {noun}; transcribe the recording about {topic};
design a {adj} logo for {business}; search the web for news about {topic}; book a table in {place} for {n} people; remind me to {verb} the {noun};
set an alarm; turn off the {product}; schedule a meeting about {topic} on {day}; send an email to my {party} about {topic}
"""
BARE = """
{topic}; {noun}; {topic} and {topic2}; {topic}, {topic2}, {topic3}; {skill}; {skill}, {skill2}; {skill}, {skill2}, {skill3};
{skill} and {topic}; {adj} {noun}; {verb} {noun}; {code} {skill}; {language} {skill}; expert in {topic}; {job}; {topic} for beginners;
agent for {skill}; a model that is good at {skill} and {skill2}; {skill} assistant; specialised in {topic}; fast and cheap {skill};
large model with strong {skill}; {product} {fault}; {illness}; {tool} {error}; {place}; {country} {topic}; {noun}, {noun2}, {noun3}
"""
SLOTS_TEXT: Mapping[str, str] = {
    "doc": """this email;the following article;the attached report;this paragraph;the meeting notes;this contract;my essay;the text below;
this research paper;the transcript;this chapter;the customer review;this blog post;my cover letter;the press release;this news story""",
    "piece": """a poem;a short story;an essay;a blog post;a haiku;a song;a speech;an email;a tweet;a product description;a limerick;a fairy tale;
a dialogue;a cover letter;a newsletter;a press release;a screenplay scene;a eulogy;a riddle;an abstract;a sonnet;a letter of complaint""",
    "language": """French;German;Spanish;Italian;Portuguese;Japanese;Chinese;Korean;Arabic;Russian;Polish;Dutch;Turkish;Swedish;Greek;Hindi;
Hebrew;Latin;Danish;Finnish;Czech;Ukrainian;Vietnamese;Thai;English;Swahili;Romanian;Hungarian""",
    "phrase": """good morning;where is the train station;I love you;thank you very much;the bill, please;see you tomorrow;happy birthday;
how much does it cost;I am allergic to nuts;my name is Anna;please call a doctor;the meeting has been postponed;our shipment is delayed""",
    "topic": """quantum computing;climate change;the French Revolution;machine learning;photosynthesis;inflation;blockchain;world war two;
the stock market;black holes;evolution;plate tectonics;artificial intelligence;neural networks;the immune system;vaccines;nutrition;yoga;
gardening;astronomy;cybersecurity;cloud computing;open source software;renewable energy;electric cars;ancient Rome;Greek mythology;feminism;
the Cold War;game theory;microeconomics;supply and demand;behavioural psychology;linguistics;phonetics;philosophy of mind;ethics;utilitarianism;
constitutional law;contract law;copyright;data protection;human rights;tax law;immigration;criminal procedure;real estate;mortgages;
insurance;retirement planning;personal finance;budgeting;marketing;social media;search engine optimisation;branding;negotiation;leadership;
project management;agile development;software testing;continuous integration;microservices;databases;distributed systems;operating systems;
compilers;computer graphics;robotics;signal processing;electronics;thermodynamics;fluid dynamics;relativity;nuclear physics;organic chemistry;
genetics;cell biology;ecology;anatomy;neuroscience;mental health;sleep;exercise;parenting;education;child development;dementia;cancer research;
diabetes;heart disease;epidemiology;surgery;dentistry;veterinary medicine;cooking;baking;wine;coffee;travel;architecture;painting;photography;
music theory;jazz;opera;classical music;cinema;literature;Shakespeare;poetry;science fiction;video games;chess;football;basketball;tennis;
the Olympics;cycling;running;swimming;fashion;interior design;carpentry;plumbing;car maintenance;aviation;shipping;logistics;agriculture;
mining;steel production;urban planning;public transport;elections;democracy;diplomacy;military strategy;terrorism;religion;Buddhism;Islam;
Christianity;Judaism;archaeology;dinosaurs;the ocean;volcanoes;earthquakes;weather forecasting;space travel;the moon landing;linear algebra;
calculus;statistics;probability theory;number theory;topology;combinatorics;geometry;graph theory;cryptography;natural language processing;
computer vision;reinforcement learning;recommendation systems;data engineering;spreadsheets;accounting;auditing;venture capital;startups;
human resources;remote work;customer service;sales;e-commerce;advertising;public relations;journalism;free speech;privacy;divorce;inheritance;
employment contracts;product liability;antitrust law;patents;trade secrets;international trade;tariffs;central banks;monetary policy;
unemployment;poverty;globalisation;migration;slavery;colonialism;the Renaissance;the Industrial Revolution;the Roman Empire;ancient Egypt;
the American Civil War;the Second World War;the Russian Revolution;feudalism;the Silk Road;the Ottoman Empire;grammar;spelling;etymology""",
    "thing": """telephone;printing press;steam engine;bicycle;laptop;camera;radio;microscope;telescope;light bulb;refrigerator;piano;violin;
compass;clock;paper;gunpowder;penicillin;vaccine;transistor;internet;credit card;website;garden;house;car;boat;garage;roof;kitchen;resume;
guitar;phone;computer;printer;router;bank account;solar panel;dishwasher;tent;drone;3D printer;mattress;insurance policy;wedding""",
    "code": "Python;JavaScript;TypeScript;Java;C;C++;C#;Go;Rust;Ruby;PHP;Swift;Kotlin;Scala;R;MATLAB;Haskell;Perl;Bash;SQL;HTML;CSS;React;Lua;Julia",
    "code_kind": "function;class;script;method;module;program;loop;query;decorator;parser;API endpoint;component;test;library;command line tool;macro",
    "code_task": """sorts a list of integers;reverses a string;reads a CSV file;counts words in a text;finds duplicates in an array;
parses JSON;sends an email;connects to a database;downloads a web page;computes Fibonacci numbers;checks whether a number is prime;
implements binary search;merges two sorted lists;validates email addresses;caches results;retries failed requests;logs errors;
draws a chart;resizes images;finds the shortest path in a graph;balances a binary tree;handles concurrent connections;encrypts a password;
converts dates between time zones;renders a table;paginates results;removes the last element of a stack;computes the longest common subsequence;
checks balanced parentheses;multiplies matrices;computes the factorial of a number;rotates a list to the right;filters even numbers;
returns the maximum and minimum of a tuple;replaces vowels in a string;sums the digits of a number;finds the median of two arrays""",
    "code_goal": """read a file line by line;sort a dictionary by value;flatten a nested list;make an HTTP request;handle exceptions;
write to a log file;parse command line arguments;create a thread pool;generate random numbers;connect to PostgreSQL;scrape a website;
train a neural network;plot a histogram;merge two data frames;build a REST API;authenticate users;upload a file;stream video;
use regular expressions;split a string on commas;remove white space;loop over an array;define an interface;allocate memory;free a pointer;
avoid a race condition;write a recursive function;serialise an object;compute a hash;compare two dates;center a div;validate a form""",
    "error": """a null pointer exception;a segmentation fault;index out of range;a key error;a syntax error near line 12;a type mismatch;
connection refused;permission denied;out of memory;a stack overflow;undefined is not a function;a timeout;module not found;
a deadlock;a 404 not found;a 500 internal server error;an import error;an infinite loop;a memory leak;a certificate error""",
    "sql": """counts orders per customer;joins users with their payments;finds the second highest salary;deletes duplicate rows;
lists customers without orders;computes a running total;ranks products by revenue;groups sales by month;updates prices by ten percent""",
    "regex": "phone numbers;email addresses;dates;IP addresses;postal codes;URLs;hexadecimal colours;credit card numbers;words in capitals",
    "shell": """renames all files in a folder;deletes old logs;backs up a directory;counts lines of code;monitors disk space;
restarts a service;compresses images;finds large files;kills a hung process;lists open ports""",
    "tool": """Docker;Kubernetes;PostgreSQL;MySQL;Redis;nginx;Apache;Git;Jenkins;Terraform;Ansible;Linux;Windows;MongoDB;Kafka;Spark;
Elasticsearch;Grafana;Excel;LibreOffice;Photoshop;WordPress;Visual Studio Code;Vim;Emacs;SSH;a VPN;a firewall;systemd;TensorFlow;PyTorch""",
    "platform": "AWS;Azure;Google Cloud;a Raspberry Pi;Debian;Ubuntu;macOS;Windows;Android;an iPhone;a virtual machine;bare metal;a laptop",
    "equation": """2x + 3 = 11;x^2 - 5x + 6 = 0;3(x - 4) = 2x + 7;sin(x) = 1/2;log(x) = 3;the system x + y = 10, x - y = 2;x^3 = 27;
|x - 3| < 5;dy/dx = 3y;a quadratic equation with roots 2 and 5""",
    "math": """the integral of x^2 from 0 to 3;the derivative of sin(x) cos(x);the determinant of a 3 by 3 matrix;the sum of the first 100 integers;
17 times 24;the square root of 1764;the greatest common divisor of 84 and 36;the limit of (1 + 1/n)^n;8 factorial;the area of a circle of radius 7;
the volume of a cone;the standard deviation of 2, 4, 4, 5, 9;the eigenvalues of a symmetric matrix;15 percent of 240;the hypotenuse of a right triangle""",
    "theorem": """the square root of two is irrational;there are infinitely many primes;the sum of angles in a triangle is 180 degrees;
every finite group of prime order is cyclic;the sum of two even numbers is even;a continuous function on a closed interval is bounded;
the set of real numbers is uncountable;n^3 - n is divisible by six;a tree with n vertices has n - 1 edges""",
    "mathobj": "derivative;integral;roots;maximum;inverse;Taylor series;Fourier transform;limit;slope;tangent;domain;asymptotes;period;factors",
    "function": "x^3 - 3x;e^(2x);ln(x + 1);1 / (x^2 + 1);sin(2x);tan(x);a polynomial of degree four;|x|;2^x;the permutation (1 2 3)(4 5)",
    "wordproblem": """a train travels {number} km in {n} hours, what is its speed?;{name} has {number} apples and gives away {n}, how many are left?;
a shop sells {number} pens at ${n} each, how much does it earn?;{name} reads {n} pages a day, how long does a book of {number} pages take?;
if {n} workers build a wall in {number} days, how long do twice as many need?;{name} saves ${number} a month, how much is it after {n} years?;
a tank holds {number} litres and loses {n} litres an hour, when is it empty?;{name} is {n} years older than {name2}, together they are {number}, how old is each?;
a recipe needs {n} eggs for {number} cookies, how many eggs for half of them?;{name} drives {number} miles on {n} gallons of petrol, what is the mileage?""",
    "name": "Anna;Tom;Maria;James;Priya;Carlos;Fatima;Wei;Sarah;John;Olga;Ahmed;Lucy;Peter;Mia;Jack;Natalie;Ben;Emily;Raj",
    "chance": """two dice sum to seven;a coin lands heads three times;a card drawn at random is an ace;it rains on both days;
two people share a birthday;a random number is even;a test gives a false positive;a bag yields two red balls""",
    "quantity": "5 miles;100 degrees Fahrenheit;3 pounds;12 inches;2 gallons;70 kilograms;90 minutes;1 acre;250 euros;8 ounces;10 feet",
    "unit": "kilometres;Celsius;kilograms;centimetres;litres;pounds;hours;square metres;dollars;grams;metres;yen;miles;seconds",
    "product": """washing machine;headphones;phone;laptop;coffee machine;shoes;jacket;printer;vacuum cleaner;television;tablet;bicycle;sofa;
watch;router;oven;blender;keyboard;monitor;camera;fridge;microwave;lamp;backpack;air conditioner;electric scooter;smart speaker;toaster;game console""",
    "fault": """does not turn on;arrived broken;makes a strange noise;is the wrong size;stopped working after a week;overheats;
is leaking water;has a cracked screen;will not charge;is missing parts;keeps disconnecting;smells of smoke;shows an error code;never arrived""",
    "service": """email;streaming;online banking;cloud storage;mobile phone;internet;newspaper;gym;food delivery;ride hailing;music;
insurance;electricity;credit card;airline;hotel booking;dating;learning platform;photo editing;messaging;tax software;payroll""",
    "setting": """delivery address;password;language;privacy settings;billing date;notifications;profile picture;payment method;username;
two-factor authentication;time zone;theme;currency;invoices;calendar;contacts;seat;plan""",
    "contract": """lease;employment contract;non-disclosure agreement;licence agreement;loan agreement;purchase agreement;privacy policy;
service agreement;will;prenuptial agreement;terms of service;partnership agreement;insurance policy;power of attorney;patent application""",
    "legal": """record a phone call;fire a pregnant employee;copy a DVD;fly a drone over houses;use a photo from the internet;withhold rent;
work while on a student visa;sell homemade food;scrape a website;park on the pavement;open another person's mail;keep a deposit""",
    "party": "landlord;tenant;employer;employee;neighbour;supplier;customer;bank;insurer;contractor;boss;mother;friend;teacher;colleague;ex-husband;doctor;school",
    "dispute": "raises the rent;refuses to pay;cancels the contract;reads my email;withholds my wages;sells me a faulty car;injures me;breaks a promise",
    "clause": """liability;termination;confidentiality;arbitration;warranty;indemnity;force majeure;non-compete;late payment;negligence;
self-defence;defamation;trespass;fraud;overtime;maternity leave;data breaches;eviction;custody;bail;jurisdiction;due process""",
    "illness": """diabetes;asthma;migraine;flu;pneumonia;high blood pressure;a heart attack;a stroke;depression;anxiety;arthritis;anaemia;
back pain;a sprained ankle;food poisoning;measles;hepatitis;kidney stones;appendicitis;insomnia;eczema;a sore throat;fever;cough;vertigo;cancer;epilepsy""",
    "drug": "ibuprofen;aspirin;paracetamol;antibiotics;insulin;blood thinners;antidepressants;antihistamines;alcohol;caffeine;statins;cortisone;morphine",
    "dish": """lasagne;chicken curry;pancakes;sourdough bread;tomato soup;sushi;roast beef;chocolate cake;risotto;tacos;apple pie;paella;
fried rice;lentil stew;goulash;ramen;hummus;pizza;omelette;cheesecake;beef stew;grilled salmon;potato salad;dumplings;ice cream""",
    "place": """Paris;London;Rome;Tokyo;New York;Berlin;Barcelona;Istanbul;Bangkok;Sydney;Cairo;Rio de Janeiro;Vienna;Lisbon;Prague;Amsterdam;
Athens;Dubai;Singapore;San Francisco;Chicago;Mexico City;Mumbai;Beijing;Moscow;Nairobi;Cape Town;Toronto;Stockholm;Kyoto;Venice;Iceland;Bali;the Alps""",
    "country": """France;Germany;Italy;Spain;Japan;China;India;Brazil;Canada;Australia;Mexico;Egypt;Turkey;Greece;Russia;Poland;Sweden;Norway;
South Africa;Nigeria;Kenya;Argentina;Chile;the United States;the United Kingdom;Ireland;Switzerland;Austria;Vietnam;Thailand;Indonesia;Iran;Israel;Ukraine""",
    "event": "the World Cup;the last election;the Nobel Prize in physics;the Tour de France;the Oscars;Wimbledon;the Super Bowl;the chess championship",
    "person": """Albert Einstein;Marie Curie;Isaac Newton;Charles Darwin;Napoleon;Julius Caesar;Cleopatra;Leonardo da Vinci;Mozart;Beethoven;
William Shakespeare;Jane Austen;Abraham Lincoln;Gandhi;Nelson Mandela;Martin Luther King;Aristotle;Plato;Karl Marx;Sigmund Freud;Alan Turing;Galileo;Picasso""",
    "month": "January;February;March;April;May;June;July;August;September;October;November;December;week;quarter;year;summer;winter",
    "day": "Monday;Tuesday;Wednesday;Thursday;Friday;Saturday;Sunday;tomorrow;next week;tonight",
    "feeling": "sad;lonely;anxious;angry;happy;tired;stressed;bored;excited;guilty;jealous;proud;confused;afraid;grateful;overwhelmed;homesick",
    "life": """a broken relationship;a difficult boss;moving to another city;losing my job;exam stress;a noisy neighbour;making friends;
saving money;quitting smoking;losing weight;a new baby;grief;burnout;procrastination;public speaking;choosing a career;retirement;a wedding;debts""",
    "entity": "names;dates;amounts;addresses;companies;email addresses;deadlines;action items;prices;places;keywords;phone numbers;invoice numbers;obligations",
    "business": """a bakery;a hospital;an online shop;a school;a bank;an airline;a restaurant;a hotel;a law firm;a farm;a gym;a startup;
a library;a factory;an insurance company;a software company;a charity;a supermarket;a football club;a construction firm;a pharmacy;a museum""",
    "job": """nurse;software engineer;teacher;lawyer;accountant;electrician;data scientist;chef;pilot;journalist;sales manager;plumber;
architect;pharmacist;truck driver;translator;graphic designer;social worker;dentist;product manager;security analyst;mechanic;biologist""",
    "skill": """coding;reasoning;analysis;mathematics;translation;summarization;creative writing;customer support;classification;extraction;
question answering;conversation;chat;planning;data analysis;code review;debugging;legal analysis;medical advice;research;vision;image generation;
speech recognition;text to speech;embedding;search;retrieval;tool use;function calling;long context;multilingual;sentiment analysis;moderation;
financial analysis;tutoring;proofreading;copywriting;programming;code generation;logical reasoning;problem solving;general knowledge;instruction following;
document understanding;optical character recognition;transcription;web browsing;scheduling;email drafting;report writing;SQL;statistics;science;
history;law;medicine;finance;marketing;storytelling;brainstorming;small talk;fact checking;structured output;JSON extraction;data cleaning;forecasting""",
}


def _items(text: str) -> list[str]:
    return [item.strip() for item in re.split(r";\s*", text.strip()) if item.strip()]


SLOTS = {name: _items(text) for name, text in SLOTS_TEXT.items()}
REQUESTS = _items(ACTIONS)
PHRASES = _items(BARE)


class RequestWriter:
    """Fills wordings with words.

    Parameters
    ----------
    words
        Lemmas by part of speech: ``noun``, ``verb``, ``adj``; empty lists are allowed.
    random_
        Where chance comes from.
    """

    def __init__(self, words: Mapping[str, Sequence[str]], random_: random.Random) -> None:
        self.random = random_
        self.slots = {k: list(v) for k, v in SLOTS.items()}
        self.slots["noun"] = list(words.get("noun", ())) or self.slots["thing"]
        self.slots["verb"] = list(words.get("verb", ())) or ["repair", "build", "clean", "sell", "buy"]
        self.slots["adj"] = list(words.get("adj", ())) or ["formal", "friendly", "simple", "modern"]

    def _fill(self, wording: str) -> str:
        def one(match: re.Match[str]) -> str:
            slot = match[1].rstrip("23") if match[1] not in self.slots else match[1]
            if slot == "n":
                return str(self.random.randint(2, 20))
            if slot in ("number", "percent"):
                return str(self.random.randint(5, 900))
            if slot == "year":
                return str(self.random.randint(1200, 2025))
            return self._fill(self.random.choice(self.slots[slot]))

        return re.sub(r"\{(\w+)\}", one, wording)

    def request(self) -> str:
        """One request, sometimes polite, sometimes with a wish for its form."""
        text = self._fill(self.random.choice(REQUESTS))
        opener, closer = self.random.choice(OPENERS), self.random.choice(CLOSERS)
        if not opener and self.random.random() < 0.7:
            text = text[0].upper() + text[1:]
        end = "" if text.endswith("?") or self.random.random() < 0.3 else "."
        return f"{opener}{text}{end}{closer}"

    def phrase(self) -> str:
        """A few words without a sentence, as people describe what an agent can do."""
        return self._fill(self.random.choice(PHRASES))

    def long_request(self, context: str) -> str:
        """A request with material to work on, before or after it."""
        request = self.request()
        return f"{request}\n\n{context}" if self.random.random() < 0.6 else f"{context}\n\n{request}"


def synthetic_requests(
    words: Mapping[str, Sequence[str]], contexts: Sequence[str], number: int, seed: int
) -> Iterator[str]:
    """`number` texts: 60% requests, 15% pairs of requests, 15% phrases, 10% requests with material."""
    random_ = random.Random(f"{seed}/synthetic")
    writer = RequestWriter(words, random_)
    for _ in range(number):
        kind = random_.random()
        if kind < 0.60:
            yield writer.request()
        elif kind < 0.75:
            yield f"{writer.request()} {writer.request()}"
        elif kind < 0.90 or not contexts:
            yield writer.phrase()
        else:
            yield writer.long_request(random_.choice(contexts))
