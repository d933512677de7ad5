//! Messages as the chain's own code writes them: CometBFT 0.38.19 (`tendermint.privval`) and api 1.0.0
//! (`cometbft.privval.v1`).

use super::*;

const PRECOMMIT_0_38: &str = "\
    80011a7e0a770802100c180122480a20090909090909090909090909090909090909090909090909090909090909090912240801122007\
    070707070707070707070707070707070707070707070707070707070707072a080880e2cfaa0610053214030303030303030303030303\
    030303030303030338024a036578741203632d31";
const PRECOMMIT_1_0: &str = "\
    83011a80010a770802100c180122480a200909090909090909090909090909090909090909090909090909090909090909122408011220\
    07070707070707070707070707070707070707070707070707070707070707072a080880e2cfaa06100532140303030303030303030303\
    03030303030303030338024a036578741203632d311801";
const NIL_PREVOTE_0_38: &str =
    "351a330a2c0801100c1801220212002a080880e2cfaa0610053214030303030303030303030303030303030303030338021203632d31";
const PROPOSAL_0_38: &str = "\
    6c2a6a0a630820100c20ffffffffffffffffff012a480a2009090909090909090909090909090909090909090909090909090909090909\
    09122408011220070707070707070707070707070707070707070707070707070707070707070732080880e2cfaa0610051203632d31";
const PRECOMMIT_SIGNED: &str = "\
    6d0802110c0000000000000019010000000000000022480a20090909090909090909090909090909090909090909090909090909090909\
    090912240801122007070707070707070707070707070707070707070707070707070707070707072a080880e2cfaa0610053203632d31";
const EXTENSION_SIGNED: &str = "1c0a03657874110c000000000000001901000000000000002203632d31";
const NIL_PREVOTE_SIGNED: &str = "230801110c000000000000001901000000000000002a080880e2cfaa0610053203632d31";
const PROPOSAL_SIGNED: &str = "\
    6f0820110c0000000000000020ffffffffffffffffff012a480a2009090909090909090909090909090909090909090909090909090909\
    09090909122408011220070707070707070707070707070707070707070707070707070707070707070732080880e2cfaa0610053a0363\
    2d31";
const KEY_FIELDS_1_0: &str = "1a200505050505050505050505050505050505050505050505050505050505050505220765643235353139";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("a byte");
    digits.chunks(2).map(byte).collect()
}

#[tokio::test]
async fn what_is_asked_to_be_signed_is_what_the_chain_itself_would_sign() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    for (request, expected, extension) in [
        (PRECOMMIT_0_38, PRECOMMIT_SIGNED, Some(EXTENSION_SIGNED)),
        (PRECOMMIT_1_0, PRECOMMIT_SIGNED, None),
        (NIL_PREVOTE_0_38, NIL_PREVOTE_SIGNED, None),
        (PROPOSAL_0_38, PROPOSAL_SIGNED, None),
    ] {
        signer.say(&bytes(request)).await;
        let ask = stage.next_ask().await;
        assert_eq!(ask.bytes.bytes(), bytes(expected), "{request}");
        assert_eq!(ask.extension, extension.map(bytes), "{request}");
        let signature = signed(extension.map(|_| &b"of the extension"[..]));
        ask.answer.send(signature).expect("awaited");
        assert!(signer.hear().await.is_some());
    }
}

#[test]
fn requests_are_written_as_the_chain_writes_them() {
    let said = |sum| encode(&Message { sum: Some(sum) });
    assert_eq!(said(sign_vote(precommit(b"ext"))), bytes(PRECOMMIT_0_38));
    assert_eq!(said(sign_vote(vote(Kind::Prevote, None))), bytes(NIL_PREVOTE_0_38));
    assert_eq!(said(sign_proposal(proposal())), bytes(PROPOSAL_0_38));
}

#[tokio::test]
async fn the_public_key_stands_in_the_fields_of_either_version() {
    let (_stage, _node, mut signer) = Stage::connected().await;
    let request = Sum::PubKeyRequest(proto::PubKeyRequest { chain_id: CHAIN.into() });
    let answer = encode(&Message { sum: Some(signer.answer_to(request).await) });
    let up_to_0_40 = [&[0x0a, 0x22, 0x0a, 0x20][..], &[5; 32]].concat();
    let fields = [up_to_0_40, bytes(KEY_FIELDS_1_0)].concat();
    let length = u8::try_from(fields.len()).expect("short");
    assert_eq!(answer, [&[length + 2, 0x12, length][..], &fields].concat());
}
