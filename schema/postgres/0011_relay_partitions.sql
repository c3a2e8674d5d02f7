-- How many partitions the leading relay goes by; NULL: none has said. Everything that went by another
-- count has been acknowledged by Kafka before, so that whoever reads the topic's ends afterwards has
-- it behind them.
ALTER TABLE relay_position ADD COLUMN partitions int CHECK (partitions > 0);
