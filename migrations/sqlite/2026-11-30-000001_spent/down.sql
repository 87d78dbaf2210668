DROP TABLE spent;
