//! Bits of a message's `sysFlag` (RocketMQ: `MessageSysFlag`). Other bits are kept as they are.

/// The body is compressed, see [`super::compression`].
pub const COMPRESSED: i32 = 1;
/// The TAGS property holds several tags.
pub const MULTI_TAGS: i32 = 1 << 1;
/// No transaction.
pub const TRANSACTION_NOT_TYPE: i32 = 0;
/// A half message.
pub const TRANSACTION_PREPARED_TYPE: i32 = 1 << 2;
/// The message of a transaction that ended as committed.
pub const TRANSACTION_COMMIT_TYPE: i32 = 2 << 2;
/// The message of a transaction that was rolled back; also the mask of the transaction bits.
pub const TRANSACTION_ROLLBACK_TYPE: i32 = 3 << 2;
/// The host the message was made on has an IPv6 address.
pub const BORNHOST_V6: i32 = 1 << 4;
/// The host the message is stored on has an IPv6 address.
pub const STOREHOST_V6: i32 = 1 << 5;
/// The record wraps a batch that consumers take apart.
pub const NEED_UNWRAP: i32 = 1 << 6;
/// The record is an inner batch.
pub const INNER_BATCH: i32 = 1 << 7;
/// Mask of the compression type.
pub const COMPRESSION_TYPE_MASK: i32 = 7 << 8;

/// The transaction bits of a flag: one of the four `TRANSACTION_…` values.
pub fn transaction_type(flag: i32) -> i32 {
    flag & TRANSACTION_ROLLBACK_TYPE
}

/// The flag with its transaction bits replaced.
pub fn with_transaction_type(flag: i32, transaction_type: i32) -> i32 {
    (flag & !TRANSACTION_ROLLBACK_TYPE) | (transaction_type & TRANSACTION_ROLLBACK_TYPE)
}

/// Whether the body is compressed.
pub fn is_compressed(flag: i32) -> bool {
    flag & COMPRESSED != 0
}

/// Bytes of an address in a record: 4 or 16 of the IP, 4 of the port.
pub(crate) fn host_len(flag: i32, v6_bit: i32) -> usize {
    if flag & v6_bit == 0 { 8 } else { 20 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_bits_are_replaced_alone() {
        let flag = COMPRESSED | TRANSACTION_PREPARED_TYPE | BORNHOST_V6;
        let ended = with_transaction_type(flag, TRANSACTION_COMMIT_TYPE);
        assert_eq!(transaction_type(ended), TRANSACTION_COMMIT_TYPE);
        assert_eq!(ended & !TRANSACTION_ROLLBACK_TYPE, COMPRESSED | BORNHOST_V6);
    }
}
