module signet/test/bench/mint

go 1.26.0
