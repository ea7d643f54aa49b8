#pragma once

#include <string>

#include "rometrace/text/bpe_vocabulary.hpp"

namespace rometrace {

/// A serialised SentencePiece model that splits a text, written in the vocabulary's alphabet, exactly as BPE by ranks
/// does: pieces in id order, score = -(merge rank), type BPE, no normalisation, no dummy prefix, no whitespace escape,
/// an unknown piece at the end (its id is the vocabulary's size), for runs of characters without a token; tokens that
/// no merge can make are control pieces, so that they are never produced from text. Exact for every list of merges
/// (several for one token, out of order): the proof stands beside the code. Throws Error: too many tokens.
std::string to_sentencepiece_model(const BpeVocabulary& vocabulary);

}  // namespace rometrace
