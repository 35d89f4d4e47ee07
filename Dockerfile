FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends make git g++ && rm -rf /var/lib/apt/lists/*
COPY . /wiseale_nb
WORKDIR /wiseale_nb
RUN make setup
CMD ["sh", "-c", "make figures && make test"]
