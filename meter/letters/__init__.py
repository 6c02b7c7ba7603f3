"""Letters made of settled transfers: the lead of a failed transfer; and the heads of the chains."""
