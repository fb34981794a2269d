{"key_id": "83b11eb9ed5f0521", "signature": "y8z1k7sh8byzNkEK4HBUezc6GAiyPvCmsGEHl8Ue24w2ZGXFb8COkYHujxeoGqcp/4wdwdi+Kn57lhHhmzytDg=="}
